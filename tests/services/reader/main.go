// Command reader waits for somebody to connect to it, then fetches something over and over, each time on a
// connection of its own, and can stop reading in the middle.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"time"

	"gopulse.test/services/internal/tied"
)

func main() {
	var reader Reader
	address := flag.String("url", "", "what to fetch")
	flag.IntVar(&reader.Buffer, "buffer", 0, "SO_RCVBUF; 0 leaves it to the kernel")
	flag.Int64Var(&reader.StopAfter, "stop-after", 0, "bytes of the body after which to stop for a while")
	flag.DurationVar(&reader.Stop, "stop", 0, "for how long to stop then")
	flag.DurationVar(&reader.Slow, "slow", 0, "pause after each 16 KiB")
	n := flag.Int("n", 1, "how often")
	flag.Parse()
	tied.ToParent()

	target, err := url.Parse(*address)
	if err != nil {
		log.Fatal(err)
	}
	waitForSomebody()
	for range *n {
		began := time.Now()
		size, err := reader.Fetch(target)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("read %d bytes in %v\n", size, time.Since(began))
	}
}

// waitForSomebody gives a tracer the time to find this process before it connects.
func waitForSomebody() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening", listener.Addr())
	if _, err := listener.Accept(); err != nil {
		log.Fatal(err)
	}
}

// Reader reads in its own time.
type Reader struct {
	Buffer     int
	StopAfter  int64
	Stop, Slow time.Duration
}

// Fetch gives the size of the body.
func (r *Reader) Fetch(target *url.URL) (int64, error) {
	connection, err := net.Dial("tcp", target.Host)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	if r.Buffer > 0 {
		connection.(*net.TCPConn).SetReadBuffer(r.Buffer)
	}
	fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", target.RequestURI(), target.Host)
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	fmt.Println("reading")
	return r.read(response.Body)
}

func (r *Reader) read(body io.Reader) (size int64, err error) {
	piece := make([]byte, 16<<10)
	stopped := r.Stop == 0
	for {
		n, err := body.Read(piece)
		size += int64(n)
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		if !stopped && size >= r.StopAfter {
			stopped = true
			r.doSomethingElse()
		}
		time.Sleep(r.Slow)
	}
}

func (r *Reader) doSomethingElse() {
	time.Sleep(r.Stop)
}
