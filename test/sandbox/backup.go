package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Backup takes a copy of all that the cluster keeps, as a backup of etcd is. Nobody can write meanwhile.
func (s *Sandbox) Backup(ctx context.Context) error {
	if err := s.Stop(ctx, etcd); err != nil {
		return err
	}
	err := errors.Join(os.RemoveAll(s.backupDir()), os.CopyFS(s.backupDir(), os.DirFS(s.etcdDir())))
	return errors.Join(err, s.StartAgain(etcd), s.WaitForAPI(ctx))
}

// Restore has the cluster be again what Backup took. The API server is started anew, as the manual of Kubernetes says, and so are
// Kubernetes' own controllers and proxies, but nothing of Herald's.
func (s *Sandbox) Restore(ctx context.Context) error {
	others := []string{controllerManager}
	for _, node := range s.Nodes() {
		others = append(others, kubeProxy+"-"+node)
	}
	for _, name := range append([]string{apiServer, etcd}, others...) {
		if err := s.Stop(ctx, name); err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll(s.etcdDir()), os.CopyFS(s.etcdDir(), os.DirFS(s.backupDir()))); err != nil {
		return err
	}
	if err := errors.Join(s.StartAgain(etcd), s.StartAgain(apiServer), s.WaitForAPI(ctx)); err != nil {
		return err
	}
	// They would end when the API server does not answer soon.
	for _, name := range others {
		if err := s.StartAgain(name); err != nil {
			return err
		}
	}
	for _, node := range s.Nodes() {
		if err := s.WaitForProxy(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sandbox) etcdDir() string { return filepath.Join(s.dir, "etcd") }

func (s *Sandbox) backupDir() string { return filepath.Join(s.dir, "etcd-backup") }
