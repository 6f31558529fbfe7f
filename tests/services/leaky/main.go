// Command leaky answers every request at once, and some of its handlers leave goroutines behind.
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
	store := flag.String("store", "", "the URL that /fetch and /forget ask")
	idle := flag.Int("idle", 0, "goroutines that wait for news from the start on")
	pause := flag.Duration("pause", 100*time.Millisecond, "how long those of /brief and /poll wait")
	flag.Parse()
	tied.ToParent()

	news := make(chan string)
	for range *idle {
		go subscribe(news)
	}
	pool := &Pool{jobs: make(chan func()), room: 40}
	handle := func(path string, work func()) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			work()
			io.WriteString(w, "ok\n")
		})
	}
	handle("/ok", func() {})
	handle("/send", report)
	handle("/group", gather)
	handle("/range", stream)
	handle("/poll", func() { go poll(make(chan string), *pause) })
	handle("/brief", func() { go brief(*pause) })
	handle("/pool", func() { pool.Do(func() {}) })
	handle("/forget", func() { forget(*store) })
	handle("/fetch", func() { fetch(*store) })
	serve.HTTP(*address, nil)
}

func subscribe(news chan string) { <-news }

// brief waits for a while, as a goroutine with a time limit does.
func brief(pause time.Duration) {
	done := make(chan struct{})
	time.AfterFunc(pause, func() { close(done) })
	<-done
}
