package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// newEtcdCommand runs one etcd member that never syncs to disk: it serves a
// test bed, whose data need not survive a power cut.
func newEtcdCommand() *cobra.Command {
	var dataDir, listen, peer string
	cmd := &cobra.Command{
		Use:          "etcd",
		Short:        "Run one etcd member for the sandbox",
		SilenceUsage: true,
		Args:         cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return runEtcd(dataDir, listen, peer)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "folder for the data")
	cmd.Flags().StringVar(&listen, "listen-client-url", "http://127.0.0.1:2379", "URL to serve clients on")
	cmd.Flags().StringVar(&peer, "listen-peer-url", "http://127.0.0.1:2380", "URL to serve peers on")
	return cmd
}

func runEtcd(dataDir, listen, peer string) error {
	clientURL, err := url.Parse(listen)
	if err != nil {
		return fmt.Errorf("--listen-client-url: %w", err)
	}
	peerURL, err := url.Parse(peer)
	if err != nil {
		return fmt.Errorf("--listen-peer-url: %w", err)
	}

	config := embed.NewConfig()
	config.Dir = dataDir
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	config.ListenClientUrls = []url.URL{*clientURL}
	config.AdvertiseClientUrls = []url.URL{*clientURL}
	config.ListenPeerUrls = []url.URL{*peerURL}
	config.AdvertisePeerUrls = []url.URL{*peerURL}
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	server, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	defer server.Close()

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return err
	case <-server.Server.StopNotify():
		return errors.New("etcd stopped by itself")
	}
}
