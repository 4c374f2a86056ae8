package httpgateway

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// hostNames collects the names a request's Host may carry: those of the
// listen addresses and those a person configured.
func hostNames(listen, hosts []string) (map[string]bool, error) {
	out := map[string]bool{}
	for _, addr := range listen {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: %w", addr, err)
		}
		if host != "" {
			out[canonicalHost(host)] = true
		}
	}
	for _, h := range hosts {
		out[canonicalHost(h)] = true
	}
	return out, nil
}

func canonicalHost(h string) string { return strings.TrimSuffix(strings.ToLower(h), ".") }

// allowed guards against DNS rebinding: a page of evil.example whose name was
// pointed to 127.0.0.1 sends Host: evil.example. An IP literal cannot be
// pointed anywhere, so any is allowed; so are loopback names and configured
// ones. Browsers always send a Host; what sends none (HTTP/1.0) is no browser.
func (g *Gateway) allowed(hostport string) bool {
	if hostport == "" {
		return true
	}
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = canonicalHost(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || g.hosts[host]
}
