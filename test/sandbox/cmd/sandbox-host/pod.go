package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// pod answers every request with who it is and whom it sees.
type pod struct{ name, node string }

// endpoints pairs each address with each port.
func endpoints(addresses, ports string) []string {
	var all []string
	for address := range strings.SplitSeq(addresses, ",") {
		for port := range strings.SplitSeq(ports, ",") {
			all = append(all, net.JoinHostPort(address, port))
		}
	}
	return all
}

// serve serves until ctx ends or a socket fails.
func (p pod) serve(ctx context.Context, tcp, udp []string) error {
	failed := make(chan error, len(tcp)+len(udp))
	for _, address := range tcp {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() { failed <- http.Serve(listener, p) }()
	}
	for _, address := range udp {
		conn, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		go func() { failed <- p.echo(conn) }()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// ServeHTTP answers after the time in the query parameter "wait", if any.
func (p pod) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if wait, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
		time.Sleep(wait)
	}
	fmt.Fprintln(w, p.answer(r.RemoteAddr))
}

// echo answers every datagram.
func (p pod) echo(conn net.PacketConn) error {
	buffer := make([]byte, 64<<10)
	for {
		_, client, err := conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		conn.WriteTo([]byte(p.answer(client.String())+"\n"), client)
	}
}

func (p pod) answer(client string) string {
	host, _, _ := net.SplitHostPort(client)
	return fmt.Sprintf("pod=%s node=%s client=%s", p.name, p.node, host)
}
