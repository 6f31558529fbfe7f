// Command stuck serves requests of which some are never answered, each for another reason, beside
// some that are answered at once and some that are quiet on purpose.
package main

import (
	"flag"
	"io"
	"log"
	"net/http"
	"sync"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	accepts := flag.Int("accepts", 0, "connections to accept, and no more; 0 for all")
	flag.Parse()
	tied.ToParent()

	board := NewBoard()
	http.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	http.HandleFunc("/send", func(w http.ResponseWriter, r *http.Request) { board.Post() })
	http.HandleFunc("/receive", func(w http.ResponseWriter, r *http.Request) { board.Fetch() })
	http.HandleFunc("/lock", func(w http.ResponseWriter, r *http.Request) { board.Count() })
	http.HandleFunc("/group", func(w http.ResponseWriter, r *http.Request) { board.Gather() })
	http.HandleFunc("/poll", poll)

	listener := serve.Listen(*address)
	if *accepts > 0 {
		listener = &Limited{Listener: listener, left: *accepts}
	}
	log.Fatal(http.Serve(listener, nil))
}

// poll is a long poll without news: it ends when its client leaves.
func poll(w http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-time.After(time.Hour):
		w.WriteHeader(http.StatusNoContent)
	}
}

// A Board has a fault in each of its methods.
type Board struct {
	notes chan string
	lock  sync.Mutex
	posts int
}

// NewBoard gives a board whose lock is held.
func NewBoard() *Board {
	board := &Board{notes: make(chan string)}
	board.lock.Lock()
	return board
}

// Post hands over a note that nobody takes.
func (b *Board) Post() {
	posts := make(chan string)
	posts <- "note"
}

// Fetch waits for a note that nobody hands over.
func (b *Board) Fetch() string {
	return <-b.notes
}

// Count waits for a lock that nobody gives back.
func (b *Board) Count() int {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.posts
}

// Gather waits for a worker that never says it is done.
func (b *Board) Gather() {
	var workers sync.WaitGroup
	workers.Add(1)
	workers.Wait()
}
