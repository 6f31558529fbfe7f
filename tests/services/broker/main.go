// Command broker takes messages, a line each, and acknowledges each with a line.
package main

import (
	"bufio"
	"flag"
	"io"
	"log"
	"net"
	"sync"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	once := flag.Bool("once", false, "close after the first message")
	keep := flag.Bool("keep", false, "never close, also when the client has")
	flag.Parse()
	tied.ToParent()

	listener := serve.Listen(*address)
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go acknowledge(conn, *once, *keep)
	}
}

func acknowledge(conn net.Conn, once, keep bool) {
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		io.WriteString(conn, "ok\n")
		if once {
			break
		}
	}
	if keep {
		hoard(conn)
	} else {
		conn.Close()
	}
}

var hoarded struct {
	sync.Mutex
	conns []net.Conn
}

// hoard keeps a connection for nothing.
func hoard(conn net.Conn) {
	hoarded.Lock()
	defer hoarded.Unlock()
	hoarded.conns = append(hoarded.conns, conn)
}
