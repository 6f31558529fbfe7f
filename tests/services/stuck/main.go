// Command stuck serves requests of which some are never answered, each for another reason, beside
// some that are answered at once and some that are quiet on purpose.
package main

import (
	"crypto/sha1"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	accepts := flag.Int("accepts", 0, "connections to accept, and no more; 0 for all")
	lasts := flag.Duration("for", 0, "end after so long in place of with the parent, whom then no goroutine waits for")
	flag.Parse()
	if *lasts > 0 {
		time.AfterFunc(*lasts, func() { os.Exit(0) })
	} else {
		tied.ToParent()
	}

	board := NewBoard()
	http.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	http.HandleFunc("/send", func(w http.ResponseWriter, r *http.Request) { board.Post() })
	http.HandleFunc("/receive", func(w http.ResponseWriter, r *http.Request) { board.Fetch() })
	http.HandleFunc("/lock", func(w http.ResponseWriter, r *http.Request) { board.Count() })
	http.HandleFunc("/group", func(w http.ResponseWriter, r *http.Request) { board.Gather() })
	http.HandleFunc("/poll", poll)
	http.HandleFunc("/socket", socket)

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

// socket is a websocket on which nothing is said but what its client says (RFC 6455, 4.2.2).
func socket(w http.ResponseWriter, r *http.Request) {
	key := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	connection, said, err := w.(http.Hijacker).Hijack()
	if err != nil {
		log.Panic(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"+
		"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(key[:]))
	io.Copy(io.Discard, said)
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
