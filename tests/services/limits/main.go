// Command limits is an HTTP server with time limits: GET sends a long response, POST reads the request's
// body.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"gopulse.test/services/internal/tied"
)

func main() {
	read := flag.Duration("read-timeout", 0, "http.Server.ReadTimeout")
	write := flag.Duration("write-timeout", 0, "http.Server.WriteTimeout")
	end := flag.Duration("shutdown-after", 0, "when to call Shutdown; never if 0")
	flag.Parse()
	tied.ToParent()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening", listener.Addr())
	server := &http.Server{
		Handler:      http.HandlerFunc(serve),
		ReadTimeout:  *read,
		WriteTimeout: *write,
	}
	if *end > 0 {
		time.AfterFunc(*end, func() { server.Shutdown(context.Background()) })
	}
	server.Serve(listener)
	select {}
}

func serve(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		io.Copy(io.Discard, r.Body)
		return
	}
	w.Write(make([]byte, 16<<20))
}
