// Command queue takes jobs over HTTP, and keeps a watch on each client's session, one way or another.
package main

import (
	"flag"
	"io"
	"net/http"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	pprof := flag.String("pprof", "", "where to serve /debug/pprof/; nowhere if empty")
	sessions := flag.Int("sessions", 1_000, "sessions that are open from the beginning")
	watch := flag.String("watch", "timer", "how each is watched: by a timer, a ticker, after or a sweep")
	every := flag.Duration("every", time.Second, "how often each is looked at")
	room := flag.Int("room", 16, "jobs that may wait; further ones are told that the queue is busy")
	flag.Parse()
	tied.ToParent()

	watcher := NewWatcher(*watch, *every)
	go func() {
		for range *sessions {
			watcher.Open()
		}
	}()
	queue := NewQueue(*room)
	http.HandleFunc("/jobs", func(w http.ResponseWriter, r *http.Request) {
		watcher.Open()
		if !queue.Do() {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "done\n")
	})
	serve.Pprof(*pprof)
	serve.HTTP(*address, http.DefaultServeMux)
}
