// Command gateway is a reverse proxy that waits only so long for its upstream's answer.
package main

import (
	"flag"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	pprof := flag.String("pprof", "", "where to serve profiles; nowhere if empty")
	var gateway Gateway
	flag.StringVar(&gateway.Upstream, "upstream", "", "HOST:PORT of the service behind it")
	flag.DurationVar(&gateway.ResponseHeaderTimeout, "response-header-timeout", time.Second,
		"Transport.ResponseHeaderTimeout; 0 waits for ever")
	flag.StringVar(&gateway.OnError, "on-error", "abort",
		"what a client sees when the upstream fails: abort (the connection ends) or 502")
	flag.DurationVar(&gateway.Deadline, "deadline", 0, "what the context of each request is given; 0 for none")
	flag.IntVar(&gateway.MaxConns, "max-conns", 0, "Transport.MaxConnsPerHost; 0 for no limit")
	flag.BoolVar(&gateway.Traceparent, "traceparent", false, "give each request a traceparent")
	flag.Parse()
	tied.ToParent()

	serve.Pprof(*pprof)
	serve.HTTP(*address, gateway.Handler())
}
