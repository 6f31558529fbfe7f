// Command crowd is many goroutines that wait, as those of a large service do, at stacks of all depths.
// It writes the dump of them that the runtime makes, and ends; or it serves, with a leak at /leak.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	goroutines := flag.Int("goroutines", 100, "how many wait")
	dump := flag.String("dump", "", "where to write the dump of them, at the end of which this ends")
	listen := flag.String("listen", "127.0.0.1:0", "where to serve otherwise")
	flag.Parse()
	tied.ToParent()

	crowd := NewCrowd()
	for number := range *goroutines {
		go crowd.Join(number, 1+rand.Intn(30))
	}
	if *dump != "" {
		time.Sleep(time.Second)
		if err := os.WriteFile(*dump, stacks(), 0o644); err != nil {
			log.Fatal(err)
		}
		fmt.Println("goroutines", runtime.NumGoroutine())
		return
	}
	http.HandleFunc("/leak", crowd.Leak)
	serve.HTTP(*listen, nil)
}

// stacks is what /debug/pprof/goroutine?debug=2 gives, without its end at 64 MiB.
func stacks() []byte {
	for size := 64 << 20; ; size *= 2 {
		text := make([]byte, size)
		if length := runtime.Stack(text, true); length < size {
			return text[:length]
		}
	}
}

// A Crowd is what goroutines wait for together.
type Crowd struct {
	lock   sync.Mutex
	orders chan int
	done   context.Context
}

// NewCrowd gives a crowd for which nothing ever happens.
func NewCrowd() *Crowd {
	crowd := &Crowd{orders: make(chan int), done: context.Background()}
	crowd.lock.Lock()
	return crowd
}

// Join waits, so many calls deep, for what the number says.
func (c *Crowd) Join(number, depth int) {
	if depth > 0 {
		c.Join(number, depth-1)
		runtime.KeepAlive(c)
		return
	}
	switch number % 4 {
	case 0:
		c.lock.Lock()
	case 1:
		<-c.orders
	case 2:
		select {
		case <-c.done.Done():
		case <-c.orders:
		}
	default:
		time.Sleep(time.Hour)
	}
}

// Leak starts goroutines that nobody ever takes an order from, each labelled with its tenant.
func (c *Crowd) Leak(w http.ResponseWriter, r *http.Request) {
	many, _ := strconv.Atoi(r.URL.Query().Get("many"))
	refused := make(chan int)
	labels := pprof.Labels("tenant", r.URL.Query().Get("tenant"))
	pprof.Do(context.Background(), labels, func(context.Context) {
		for order := range many {
			go c.offer(refused, order)
		}
	})
	fmt.Fprintln(w, many)
}

func (c *Crowd) offer(orders chan int, order int) {
	orders <- order
}
