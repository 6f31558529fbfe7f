// Command crew passes its connections from hand to hand, as a server or (with -ask) as its client, and
// writes down whose hands they were in: for each connection, when it is closed, the goroutine that
// connected, read the requests (as a client: sent them), and closed.
//
//	connect 127.0.0.1:40000 127.0.0.1:80 17
//	exchange 127.0.0.1:40000 127.0.0.1:80 0 18
//	close 127.0.0.1:40000 127.0.0.1:80 19
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

var longest = flag.Duration("work", 10*time.Millisecond, "a request takes up to this long")

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	ask := flag.String("ask", "", "be the client of this address, from SIGCONT on")
	clients := flag.Int("clients", 1000, "connections at once")
	rounds := flag.Int("rounds", 3, "connections that each client makes, one after the other")
	requests := flag.Int("requests", 4, "requests on each")
	flag.Parse()
	tied.ToParent()

	if *ask == "" {
		Serve(serve.Listen(*address))
		return
	}
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	fmt.Println("ready")
	<-continued
	var asking sync.WaitGroup
	for n := range *clients {
		asking.Go(func() {
			by := Itself
			if n%2 == 0 {
				by = Another
			}
			for range *rounds {
				Ask(*ask, *requests, by)
			}
		})
	}
	asking.Wait()
}

// A Conn is a connection with what its hands did.
type Conn struct {
	net.Conn
	mutex sync.Mutex
	told  bytes.Buffer
	asked int
}

func (c *Conn) note(what string, more string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	fmt.Fprintf(&c.told, "%s %s %s %s%d\n", what, c.LocalAddr(), c.RemoteAddr(), more, goroutine())
}

// Requested notes that the caller read the next request, or sends it.
func (c *Conn) Requested() {
	c.note("exchange", fmt.Sprintf("%d ", c.asked))
	c.asked++
}

// End closes the connection and tells who had it.
func (c *Conn) End() {
	c.note("close", "")
	c.Close()
	os.Stdout.Write(c.told.Bytes())
}

// goroutine is the id of the caller, which the runtime tells nobody but in a stack's first line:
// "goroutine 17 [running]:".
func goroutine() uint64 {
	var line [64]byte
	fields := bytes.Fields(line[:runtime.Stack(line[:], false)])
	id, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	return id
}

// toil takes a while, sometimes on a CPU.
func toil() {
	long := rand.N(*longest + 1)
	if rand.N(4) > 0 {
		time.Sleep(long)
		return
	}
	for end := time.Now().Add(long / 50); time.Now().Before(end); {
	}
}
