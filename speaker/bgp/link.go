package bgp

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/ndp"
)

// link is what is known of an interface with an unnumbered peer. The addresses are link-local ones with the zone.
type link struct{ router, ours netip.Addr }

const (
	// advertising is how often we say that we are there. RFC 4861 asks for 3 s at least between two.
	advertising = 4 * time.Second
	// rediscovery is how soon an interface is looked at again that has none of what is needed.
	rediscovery = time.Second
)

// linkWatch finds the routers on links, by router advertisements (RFC 4861). It sends some too, as routers do not connect
// before they have heard one: with a lifetime of 0, so that nobody takes us for a way out.
type linkWatch struct {
	speaker *Speaker
	stops   map[string]context.CancelFunc
	ended   sync.WaitGroup
}

func newLinkWatch(s *Speaker) *linkWatch {
	return &linkWatch{speaker: s, stops: map[string]context.CancelFunc{}}
}

// follow watches these interfaces and no others.
func (w *linkWatch) follow(ctx context.Context, names []string) {
	for name, stop := range w.stops {
		if !slices.Contains(names, name) {
			stop()
			delete(w.stops, name)
		}
	}
	for _, name := range names {
		if w.stops[name] == nil {
			ctx, stop := context.WithCancel(ctx)
			w.stops[name] = stop
			w.ended.Go(func() { w.watch(ctx, name) })
		}
	}
}

func (w *linkWatch) stop() {
	for _, stop := range w.stops {
		stop()
	}
	w.ended.Wait()
}

// watch looks again and again, as an interface may go and come back with another index.
func (w *linkWatch) watch(ctx context.Context, name string) {
	for {
		w.listen(ctx, name)
		select {
		case <-ctx.Done():
			return
		case <-time.After(rediscovery):
		}
	}
}

// listen returns when the interface cannot be used any more.
func (w *linkWatch) listen(ctx context.Context, name string) {
	ifi, err := net.InterfaceByName(name)
	if err != nil || ifi.Flags&net.FlagUp == 0 {
		return
	}
	conn, ours, err := ndp.Listen(ifi, ndp.LinkLocal)
	if err != nil {
		return
	}
	defer closed(conn)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { closed(conn) })()
	go func() {
		for ctx.Err() == nil {
			if announce(conn, ifi) != nil {
				closed(conn)
			}
			select {
			case <-ctx.Done():
			case <-time.After(advertising):
			}
		}
	}()
	var last netip.Addr
	for {
		message, _, from, err := conn.ReadFrom()
		if err != nil {
			return
		}
		if _, ok := message.(*ndp.RouterAdvertisement); !ok || !from.IsLinkLocalUnicast() || from.WithZone("") == ours.WithZone("") {
			continue
		}
		if from = from.WithZone(name); from != last {
			last = from
			w.speaker.heard(name, link{router: from, ours: ours.WithZone(name)})
		}
	}
}

// closed ends what is waiting for the connection. It may be closed already.
func closed(conn *ndp.Conn) { _ = conn.Close() }

// announce advertises us, and asks routers to do the same.
func announce(conn *ndp.Conn, ifi *net.Interface) error {
	source := &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: ifi.HardwareAddr}
	var options []ndp.Option
	if len(ifi.HardwareAddr) == 6 {
		options = append(options, source)
	}
	err := conn.WriteTo(&ndp.RouterAdvertisement{Options: options}, nil, netip.MustParseAddr("ff02::1"))
	if err != nil {
		return err
	}
	return conn.WriteTo(&ndp.RouterSolicitation{Options: options}, nil, netip.MustParseAddr("ff02::2"))
}
