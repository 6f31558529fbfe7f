package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
)

// last is the path of a request after which the server closes the connection.
const last = "/last"

// Ask makes so many requests on a connection of its own. One goroutine connects, one sends, one reads,
// one closes, as in net/http's transport; or all four are the same.
func Ask(address string, requests int, by func(func())) {
	var c *Conn
	by(func() {
		dialled, err := net.Dial("tcp", address)
		if err != nil {
			log.Fatal(err)
		}
		c = &Conn{Conn: dialled}
		c.note("connect", "")
	})
	serverCloses := rand.N(2) == 0
	answers := bufio.NewReader(c)
	for n := range requests {
		path := "/"
		if serverCloses && n == requests-1 {
			path = last
		}
		by(func() {
			c.Requested()
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: crew\r\n\r\n", path)
		})
		by(func() { receive(answers) })
	}
	if serverCloses {
		by(func() { io.Copy(io.Discard, answers) })
	}
	by(c.End)
}

func receive(answers *bufio.Reader) {
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(io.Discard, answer.Body)
}

// Itself does it in the caller's goroutine.
func Itself(do func()) {
	do()
}

// Another does it in a new goroutine.
func Another(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	<-done
}
