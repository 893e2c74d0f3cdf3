package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
)

// forward accepts connections on file descriptor 3, a listener of another
// network namespace, and joins each to a connection of its own to target.
func forward(ctx context.Context, target string) error {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return fmt.Errorf("file descriptor 3: %w", err)
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // closed by the end of ctx
		}
		if err != nil {
			return err
		}
		go join(ctx, conn.(*net.TCPConn), target)
	}
}

// join copies both ways until both sides have said all.
func join(ctx context.Context, client *net.TCPConn, target string) {
	defer client.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()

	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(server, client)
		server.CloseWrite()
	}()
	io.Copy(client, server)
	client.CloseWrite()
	<-done
}
