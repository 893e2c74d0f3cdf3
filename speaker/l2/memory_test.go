package l2

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/net/bpf"
)

// memory is a network without a kernel. It filters as the kernel does, bounds the groups of a socket, and prints itself.
type memory struct {
	mu      sync.Mutex
	conns   map[string]*memoryConn // by interface and protocol, the latest
	open    []*memoryConn
	sockets []*memoryGroups
	limit   int              // groups per socket
	refuse  map[string]error // by interface: why it opens nothing
	sent    []string         // what was sent, each with its interface
	opened  int
}

func newMemory() *memory {
	return &memory{conns: map[string]*memoryConn{}, limit: 1000, refuse: map[string]error{}}
}

func (m *memory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for _, c := range m.open {
		lines = append(lines, c.name)
	}
	slices.Sort(lines)
	for _, s := range m.sockets {
		var groups []string
		for g := range s.groups {
			groups = append(groups, g.String())
		}
		slices.Sort(groups)
		lines = append(lines, fmt.Sprintf("%s groups %s", s.name, strings.Join(groups, " ")))
	}
	return strings.Join(lines, "\n")
}

// receive delivers a frame as the kernel would.
func (m *memory) receive(name string, frame []byte) {
	p := arp
	if len(frame) > 12 && frame[12] == 0x86 {
		p = ndp
	}
	m.mu.Lock()
	c := m.conns[name+" "+p.String()]
	m.mu.Unlock()
	if c == nil {
		return
	}
	c.network.mu.Lock()
	n, err := c.vm.Run(frame)
	c.network.mu.Unlock()
	if err == nil && n > 0 {
		c.in <- received{frame: frame}
	}
}

// setRefusal says why an interface opens nothing; nil to end that.
func (m *memory) setRefusal(name string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse[name] = err
}

// goDown makes reading fail once, as the kernel does when an interface goes down.
func (m *memory) goDown(name string) {
	m.conns[name].in <- received{err: syscall.ENETDOWN}
}

// take returns what was sent since it was last asked.
func (m *memory) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := m.sent
	m.sent = nil
	return sent
}

func (m *memory) listen(i Interface, p protocol, filter []bpf.Instruction) (conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse[i.Name]; err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s %s", i.Name, p)
	c := &memoryConn{network: m, name: name, in: make(chan received), closed: make(chan struct{})}
	c.vm, _ = bpf.NewVM(filter)
	m.conns[name] = c
	m.open = append(m.open, c)
	m.opened++
	return c, nil
}

type received struct {
	frame []byte
	err   error
}

type memoryConn struct {
	network *memory
	name    string
	vm      *bpf.VM
	in      chan received
	closed  chan struct{}
	stuck   error // what setting a filter returns
}

func (c *memoryConn) Read(b []byte) (int, error) {
	select {
	case r := <-c.in:
		return copy(b, r.frame), r.err
	case <-c.closed:
		return 0, os.ErrClosed
	}
}

func (c *memoryConn) Write(frame []byte) (int, error) {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	c.network.sent = append(c.network.sent, strings.Fields(c.name)[0]+": "+describe(frame))
	return len(frame), nil
}

func (c *memoryConn) setFilter(filter []bpf.Instruction) (err error) {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	if c.stuck != nil {
		return c.stuck
	}
	c.vm, err = bpf.NewVM(filter)
	return err
}

func (c *memoryConn) Close() error {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	if c.network.conns[c.name] == c {
		delete(c.network.conns, c.name)
	}
	c.network.open = slices.DeleteFunc(c.network.open, func(o *memoryConn) bool { return o == c })
	close(c.closed)
	return nil
}

func (m *memory) groups(i Interface) (groupSocket, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &memoryGroups{network: m, name: fmt.Sprintf("%s (%d)", i.Name, i.Index), groups: map[netip.Addr]bool{}}
	m.sockets = append(m.sockets, s)
	return s, nil
}

type memoryGroups struct {
	network *memory
	name    string
	groups  map[netip.Addr]bool
}

func (s *memoryGroups) join(group netip.Addr) error {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	switch {
	case s.groups[group]:
		return syscall.EADDRINUSE
	case len(s.groups) == s.network.limit:
		return syscall.ENOMEM
	}
	s.groups[group] = true
	return nil
}

func (s *memoryGroups) leave(group netip.Addr) error {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	if !s.groups[group] {
		return syscall.EADDRNOTAVAIL
	}
	delete(s.groups, group)
	return nil
}

func (s *memoryGroups) Close() error {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	s.network.sockets = slices.DeleteFunc(s.network.sockets, func(o *memoryGroups) bool { return o == s })
	return nil
}
