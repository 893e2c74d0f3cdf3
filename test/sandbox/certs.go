package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificate asks for one certificate of the sandbox's authority.
type certificate struct {
	name   string // of its files
	user   string
	groups []string
	hosts  []string // names it serves under; none: it is a client
	ips    []net.IP // addresses it serves under
	serves bool     // a server's
}

// certificates are all that the control plane and kube-proxy need.
func certificates() []certificate {
	v4, v6 := lanAddrs(controlPlane)
	return []certificate{
		{
			name: "apiserver", user: "kube-apiserver", serves: true,
			hosts: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			ips: []net.IP{
				net.IPv4(127, 0, 0, 1), net.IPv6loopback, v4.AsSlice(), v6.AsSlice(),
				net.IPv4(10, 96, 0, 1), net.ParseIP("fd00:96::1"),
			},
		},
		{name: "admin", user: "admin", groups: []string{"system:masters"}},
		{name: "kube-controller-manager", user: "system:kube-controller-manager"},
		{name: "kube-proxy", user: "system:kube-proxy"},
	}
}

func (s *Sandbox) pki(file string) string { return filepath.Join(s.dir, "pki", file) }

// makeCertificates fills the pki folder: an authority, a certificate and key
// per user, and the key that signs the tokens of ServiceAccounts.
func (s *Sandbox) makeCertificates() error {
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "herald-sandbox"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	key, err := s.issue("ca", authority, authority, nil)
	if err != nil {
		return err
	}
	for i, c := range certificates() {
		if _, err := s.issue(c.name, c.template(int64(i+2)), authority, key); err != nil {
			return err
		}
	}
	return s.makeTokenKey()
}

func (c certificate) template(serial int64) *x509.Certificate {
	usage := x509.ExtKeyUsageClientAuth
	if c.serves {
		usage = x509.ExtKeyUsageServerAuth
	}
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: c.user, Organization: c.groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		DNSNames: c.hosts, IPAddresses: c.ips,
	}
}

// issue writes a new key and its certificate. Without a signer it signs itself.
func (s *Sandbox) issue(name string, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := s.newKey(name)
	if err != nil {
		return nil, err
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	return key, writePEM(s.pki(name+".crt"), "CERTIFICATE", der)
}

func (s *Sandbox) makeTokenKey() error {
	key, err := s.newKey("service-account")
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	return writePEM(s.pki("service-account.pub"), "PUBLIC KEY", der)
}

func (s *Sandbox) newKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(s.pki(name+".key"), "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
