package main

import (
	"bufio"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
)

const answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"

// workers that share connections, a request at a time.
const workers = 64

var (
	pool   = make(chan *Conn, 1<<16)
	closer = make(chan *Conn, 1<<16)
	web    = make(chan net.Conn)
)

// ways to serve a connection, each of which passes it on, or not, in a way of its own.
var ways = []func(*Conn){alone, apart, share, viaHTTP}

// Serve serves each connection in one of the ways.
func Serve(listener net.Listener) {
	for range workers {
		go shares()
		go closes()
	}
	go http.Serve(fromChannel{listener}, http.HandlerFunc(hijack))
	for {
		accepted, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go ways[rand.N(len(ways))](&Conn{Conn: accepted})
	}
}

// alone: one goroutine does it all.
func alone(c *Conn) {
	for c.answered() {
	}
	c.End()
}

// apart: one reads, another answers, a third one closes.
func apart(c *Conn) {
	requests := make(chan struct{})
	go func() {
		for range requests {
			toil()
			c.reply()
		}
		// Whoever leaves the connection last closes it (internal/poll.(*FD).Close), so all have left.
		closer <- c
	}()
	for {
		last, ok := c.read()
		if ok {
			requests <- struct{}{}
		}
		if last || !ok {
			close(requests)
			return
		}
	}
}

// share: whoever is free in the pool serves one request, and puts the connection back.
func share(c *Conn) {
	pool <- c
}

func shares() {
	for c := range pool {
		if c.answered() {
			pool <- c
		} else {
			closer <- c
		}
	}
}

// viaHTTP: net/http reads the first request, and its handler gives the connection to the pool.
func viaHTTP(c *Conn) {
	web <- c
}

func hijack(w http.ResponseWriter, r *http.Request) {
	taken, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		log.Fatal(err)
	}
	c := taken.(*Conn)
	c.Requested()
	toil()
	c.reply()
	if r.URL.Path == last {
		closer <- c
		return
	}
	pool <- c
}

func closes() {
	for c := range closer {
		c.End()
	}
}

// answered serves the next request; false if that was the last, or none comes.
func (c *Conn) answered() bool {
	last, ok := c.read()
	if !ok {
		return false
	}
	toil()
	c.reply()
	return !last
}

// read reads the next request; it says whether it is the last, and whether there is one.
func (c *Conn) read() (isLast, ok bool) {
	request, err := http.ReadRequest(bufio.NewReader(c.reader()))
	if err == io.EOF {
		return false, false
	}
	if err != nil {
		log.Fatal(err)
	}
	c.Requested()
	return request.URL.Path == last, true
}

func (c *Conn) reply() {
	if _, err := io.WriteString(c, answer); err != nil {
		log.Fatal(err)
	}
}

// fromChannel is a listener of the connections that the program itself gives to net/http.
type fromChannel struct{ net.Listener }

func (fromChannel) Accept() (net.Conn, error) {
	return <-web, nil
}
