// Command doorman serves a line to everyone it lets in, and lets in one at a time, with a pause.
package main

import (
	"flag"
	"io"
	"log"
	"net"
	"syscall"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	backlog := flag.Int("backlog", 0, "how many may wait at the door; 0 for as many as the host allows")
	pause := flag.Duration("pause", 0, "pause after each")
	flag.Parse()
	tied.ToParent()

	listener := serve.Listen(*address)
	if *backlog > 0 {
		limit(listener, *backlog)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		greet(conn)
		time.Sleep(*pause)
	}
}

func greet(conn net.Conn) {
	io.WriteString(conn, "come in\n")
	conn.Close()
}

// limit listens again on the same socket, which only changes its backlog.
func limit(listener net.Listener, backlog int) {
	raw, err := listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		log.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if err := syscall.Listen(int(fd), backlog); err != nil {
			log.Fatal(err)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
}
