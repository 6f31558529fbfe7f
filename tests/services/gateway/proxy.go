package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// Gateway forwards every request to one upstream.
type Gateway struct {
	Upstream              string
	ResponseHeaderTimeout time.Duration
	OnError               string
	Deadline              time.Duration
	MaxConns              int
	Traceparent           bool
}

// Handler gives the proxy.
func (g Gateway) Handler() http.Handler {
	upstream := &url.URL{Scheme: "http", Host: g.Upstream}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			if g.Traceparent {
				r.Out.Header.Set("Traceparent", newTraceparent())
			}
		},
		Transport: &http.Transport{
			ResponseHeaderTimeout: g.ResponseHeaderTimeout,
			MaxIdleConnsPerHost:   16,
			MaxConnsPerHost:       g.MaxConns,
		},
		ErrorHandler: g.upstreamFailed,
	}
	if g.Deadline == 0 {
		return proxy
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), g.Deadline)
		defer cancel()
		proxy.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (g Gateway) upstreamFailed(w http.ResponseWriter, r *http.Request, err error) {
	log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
	if g.OnError == "abort" {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusBadGateway)
}

// newTraceparent begins a trace as https://www.w3.org/TR/trace-context/ writes it.
func newTraceparent() string {
	var id [24]byte
	rand.Read(id[:])
	return fmt.Sprintf("00-%x-%x-01", id[:16], id[16:])
}
