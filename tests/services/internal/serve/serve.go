// Package serve listens where it is told and says where that is, so that a test can ask for any free
// port and learn which one it got.
package serve

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
)

// HTTP serves handler on address, HOST:PORT or unix:PATH, until the process ends. The first line on
// standard output is "listening HOST:PORT", or "listening PATH".
func HTTP(address string, handler http.Handler) {
	log.Fatal(http.Serve(Listen(address), handler))
}

// Listen listens on address, and says so on standard output as HTTP does.
func Listen(address string) net.Listener {
	return listen(address, "listening")
}

// Pprof serves the profiling endpoints on address beside everything else, if there is an address. It
// prints "pprof HOST:PORT".
func Pprof(address string) {
	if address == "" {
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	listener := listen(address, "pprof")
	go func() { log.Fatal(http.Serve(listener, mux)) }()
}

func listen(address, what string) net.Listener {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(what, listener.Addr())
	return listener
}
