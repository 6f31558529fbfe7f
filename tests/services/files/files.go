package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Files is what there is to be had.
type Files struct {
	Pause, Tick, News time.Duration
}

// Whole sends as many bytes as ?bytes= says, and never waits by itself.
func (f *Files) Whole(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.Atoi(r.URL.Query().Get("bytes"))
	if err != nil {
		size = 10
	}
	w.Header().Set("Content-Length", strconv.Itoa(size))
	piece := make([]byte, 32<<10)
	for size > 0 {
		n, err := w.Write(piece[:min(size, len(piece))])
		if err != nil {
			return
		}
		size -= n
	}
}

// Paused sends a first half, looks for the rest, and sends that.
func (f *Files) Paused(w http.ResponseWriter, r *http.Request) {
	half := make([]byte, 20_000)
	w.Write(half)
	w.(http.Flusher).Flush()
	f.lookForTheRest()
	w.Write(half)
}

func (f *Files) lookForTheRest() {
	time.Sleep(f.Pause)
}

// Events sends one now and then for as long as somebody listens.
func (f *Files) Events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for n := 0; ; n++ {
		fmt.Fprintf(w, "data: %d\n\n", n)
		w.(http.Flusher).Flush()
		select {
		case <-time.After(f.Tick):
		case <-r.Context().Done():
			return
		}
	}
}

// Inbox answers when there is news, or when it has waited long enough.
func (f *Files) Inbox(w http.ResponseWriter, r *http.Request) {
	wait := f.News/2 + rand.N(f.News/2)
	select {
	case <-time.After(wait):
		fmt.Fprintln(w, "news")
	case <-r.Context().Done():
	}
}
