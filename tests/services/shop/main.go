// Command shop is an HTTP server with every limit of time that net/http has, and with every way to let
// a client down.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	var shop Shop
	flag.DurationVar(&shop.Delay, "delay", 0, "how long /slow takes")
	flag.BoolVar(&shop.Abort, "abort", false, "abort uploads that fail, in place of an answer")
	handler := flag.Duration("handler-timeout", 0, "time of http.TimeoutHandler; 0 for none")
	var server http.Server
	flag.DurationVar(&server.ReadTimeout, "read-timeout", 0, "Server.ReadTimeout")
	flag.DurationVar(&server.ReadHeaderTimeout, "read-header-timeout", 0, "Server.ReadHeaderTimeout")
	flag.DurationVar(&server.WriteTimeout, "write-timeout", 0, "Server.WriteTimeout")
	flag.DurationVar(&server.IdleTimeout, "idle-timeout", 0, "Server.IdleTimeout")
	flag.Parse()
	tied.ToParent()

	server.Handler = shop.Handler()
	if *handler > 0 {
		server.Handler = http.TimeoutHandler(server.Handler, *handler, "too late\n")
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening", listener.Addr())
	go shutDownOn(&server, syscall.SIGTERM)
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	// Serve returns as soon as the shutdown begins.
	select {}
}

// shutDownOn lets the server end its connections and then the process, when the signal comes.
func shutDownOn(server *http.Server, signals ...os.Signal) {
	coming := make(chan os.Signal, 1)
	signal.Notify(coming, signals...)
	<-coming
	server.Shutdown(context.Background())
	os.Exit(0)
}
