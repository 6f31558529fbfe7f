// Command notifier tells a broker of each request that it serves.
package main

import (
	"flag"
	"io"
	"log"
	"net/http"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	how := flag.String("how", "fresh", "fresh: a connection for each message; kept: one for all; leaked: a connection for each, never closed; http: each by a client of its own")
	broker := flag.String("broker", "", "whom to tell: HOST:PORT, or a URL")
	flag.Parse()
	tied.ToParent()

	notify, known := map[string]func(string) error{
		"fresh":  publish,
		"kept":   new(Publisher).Publish,
		"leaked": forget,
		"http":   post,
	}[*how]
	if !known {
		log.Fatalf("no such way: %s", *how)
	}
	serve.HTTP(*address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := notify(*broker); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		io.WriteString(w, "told\n")
	}))
}
