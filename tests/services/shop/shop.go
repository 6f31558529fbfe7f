package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// Shop serves, more or less.
type Shop struct {
	Delay time.Duration
	Abort bool
}

// Handler gives all of it.
func (s Shop) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.greet)
	mux.HandleFunc("/upload", s.upload)
	mux.HandleFunc("/slow", s.slow)
	mux.HandleFunc("/panic", s.panic)
	mux.HandleFunc("/nil", s.dereference)
	mux.HandleFunc("/abort", s.abort)
	mux.HandleFunc("/linger", s.linger)
	mux.HandleFunc("/unread", s.unread)
	return mux
}

func (s Shop) greet(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, "hello")
}

func (s Shop) upload(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	switch {
	case err == nil:
		fmt.Fprintln(w, n)
	case s.Abort:
		panic(http.ErrAbortHandler)
	default:
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (s Shop) slow(w http.ResponseWriter, r *http.Request) {
	s.cook()
	fmt.Fprintln(w, "done")
	log.Printf("answered %s", r.URL.Path)
}

// cook takes its time.
//
//go:noinline
func (s Shop) cook() { time.Sleep(s.Delay) }

func (s Shop) panic(w http.ResponseWriter, r *http.Request) { panic("out of stock") }

func (s Shop) dereference(w http.ResponseWriter, r *http.Request) {
	var stock *Shop
	fmt.Fprintln(w, stock.Delay)
}

func (s Shop) abort(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }

// linger drops the connection with SO_LINGER 0.
func (s Shop) linger(w http.ResponseWriter, r *http.Request) {
	connection := hijack(w)
	connection.(*net.TCPConn).SetLinger(0)
	connection.Close()
}

// unread drops the connection although more of the request is there.
func (s Shop) unread(w http.ResponseWriter, r *http.Request) {
	connection := hijack(w)
	time.Sleep(s.Delay)
	connection.Close()
}

func hijack(w http.ResponseWriter) net.Conn {
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		log.Panic(err)
	}
	return connection
}
