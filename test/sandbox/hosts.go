package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Nodes lists the names of the nodes.
func (s *Sandbox) Nodes() []string { return nodeNames(s.state.Config.Nodes) }

// Hosts lists the names of all hosts.
func (s *Sandbox) Hosts() []string { return allHosts(s.state.Config.Nodes) }

// Addrs returns the addresses of a host on the LAN, those of the core behind it,
// zero for a host without.
func (s *Sandbox) Addrs(host string) (v4, v6 netip.Addr) {
	if host == core {
		return coreAddrs(host)
	}
	return lanAddrs(host)
}

// MAC returns the hardware address of a host on the LAN.
func (s *Sandbox) MAC(host string) (net.HardwareAddr, error) {
	var mac net.HardwareAddr
	err := s.Do(host, func() error {
		link, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = link.HardwareAddr
		}
		return err
	})
	return mac, err
}

// Neighbour returns the hardware address that a host has for an address on the
// LAN, nil when it has none.
func (s *Sandbox) Neighbour(ctx context.Context, host string, addr netip.Addr) (net.HardwareAddr, error) {
	out, err := exec.CommandContext(ctx, "ip", "-n", s.NetnsName(host), "-json", "neigh", "show", addr.String()).Output()
	if err != nil {
		return nil, fmt.Errorf("neighbours of %s: %w", host, err)
	}
	var entries []struct{ LLAddr string }
	// ip prints nothing at all, not [], for a family it knows nobody of.
	if text := strings.TrimSpace(string(out)); text == "" {
		return nil, nil
	}
	if err := json.Unmarshal(out, &entries); err != nil {
		return nil, fmt.Errorf("neighbours of %s: %w", host, err)
	}
	for _, entry := range entries {
		if entry.LLAddr != "" {
			return net.ParseMAC(entry.LLAddr)
		}
	}
	return nil, nil
}

// ForgetNeighbours empties the neighbour table of a host, so that it asks again.
func (s *Sandbox) ForgetNeighbours(ctx context.Context, host string) error {
	return ipBatch(ctx, s.NetnsName(host), []string{"neigh flush all"})
}

// Client returns an HTTP client in a host; every request makes a connection.
func (s *Sandbox) Client(host string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: s.Dialer(host), DisableKeepAlives: true}}
}

// Get fetches a URL from a host, over a connection of its own, and returns the
// body. A status other than 200 is an error.
func (s *Sandbox) Get(ctx context.Context, host, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := s.Client(host).Do(request)
	if err != nil {
		return "", fmt.Errorf("from %s: %w", host, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", fmt.Errorf("from %s: %s: %w", host, url, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("from %s: %s: %s: %s", host, url, response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// LinkDown unplugs a host's cable from the switch: both ends lose the carrier,
// the host keeps its addresses and routes.
func (s *Sandbox) LinkDown(ctx context.Context, host string) error {
	return s.port(ctx, "link set %s down", host)
}

// LinkUp plugs it in again.
func (s *Sandbox) LinkUp(ctx context.Context, host string) error {
	return s.port(ctx, "link set %s up", host)
}

// Isolate makes the switch drop all frames from and to a host, which keeps its
// carrier: a broken path that no end can see.
func (s *Sandbox) Isolate(ctx context.Context, host string) error {
	return s.port(ctx, "link set %s nomaster", host)
}

// Rejoin ends Isolate.
func (s *Sandbox) Rejoin(ctx context.Context, host string) error {
	return s.port(ctx, "link set %s master br0", host)
}

func (s *Sandbox) port(ctx context.Context, format, host string) error {
	if lanNumber(host) == 0 {
		return fmt.Errorf("%s is not a host on the LAN", host)
	}
	return ipBatch(ctx, s.NetnsName(lan), []string{fmt.Sprintf(format, host)})
}

// PowerOff ends a node as a power cut does: nothing it sends leaves it any
// more, and all its processes and pods are gone at once.
func (s *Sandbox) PowerOff(ctx context.Context, node string) error {
	if err := s.LinkDown(ctx, node); err != nil {
		return err
	}
	return s.onNode(node, func(r record) error {
		if !r.alive() {
			return nil
		}
		// The record keeps the PID: that is how PowerOn knows what ran.
		if err := syscall.Kill(r.PID, syscall.SIGKILL); err != nil {
			return err
		}
		return poll(ctx, 10*time.Millisecond, r.dead)
	})
}

// PowerOn starts again what ran on a node when PowerOff ended it.
func (s *Sandbox) PowerOn(ctx context.Context, node string) error {
	if err := s.LinkUp(ctx, node); err != nil {
		return err
	}
	return s.onNode(node, func(r record) error {
		if r.PID == 0 || r.alive() {
			return nil
		}
		return s.Start(r.Process)
	})
}

// onNode calls f for every recorded process of a node and its pods.
func (s *Sandbox) onNode(node string, f func(record) error) error {
	all, err := s.records()
	if err != nil {
		return err
	}
	var tasks []func() error
	for _, r := range all {
		if r.Host == node || r.Host == podHost(nodeNumber(node)) {
			tasks = append(tasks, func() error { return f(r) })
		}
	}
	return together(tasks...)
}
