// Command files hands out bytes: at once, with a pause in the middle, as a stream of events, or when there is
// news.
package main

import (
	"flag"
	"net/http"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	var files Files
	flag.DurationVar(&files.Pause, "pause", time.Second, "how long /paused pauses in the middle")
	flag.DurationVar(&files.Tick, "tick", 500*time.Millisecond, "the time between two of /events")
	flag.DurationVar(&files.News, "news", 2*time.Second, "how long /poll waits at most")
	flag.Parse()
	tied.ToParent()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /whole", files.Whole)
	mux.HandleFunc("GET /paused", files.Paused)
	mux.HandleFunc("GET /events", files.Events)
	mux.HandleFunc("GET /inbox", files.Inbox)
	serve.HTTP(*address, mux)
}
