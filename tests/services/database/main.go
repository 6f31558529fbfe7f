// Command database answers a line with a line, after a while. It speaks no HTTP.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"time"

	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	least := flag.Duration("least", time.Second, "what a query takes at least")
	most := flag.Duration("most", 2*time.Second, "and at most")
	flag.Parse()
	tied.ToParent()

	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening", listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go answer(connection, *least, *most)
	}
}

func answer(connection net.Conn, least, most time.Duration) {
	defer connection.Close()
	lines := bufio.NewScanner(connection)
	for lines.Scan() {
		time.Sleep(least + rand.N(most-least+1))
		fmt.Fprintln(connection, "row of", lines.Text())
	}
}
