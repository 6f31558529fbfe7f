// Command burner computes: in the handler of one route for as long as it is told, in that of another
// for a moment; or by itself, on as many CPUs as it is told and for nobody.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

var (
	report = flag.Duration("report", 0, "how long /report computes")
	page   = flag.Duration("page", 0, "how long every other path computes")
	batch  = flag.Int("batch", 0, "how many goroutines compute all the time, besides")
)

func main() {
	flag.Parse()
	tied.ToParent()
	for range *batch {
		go func() {
			for {
				crunch(time.Second)
			}
		}()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/report", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, crunch(*report))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		crunch(*page)
		io.WriteString(w, "page\n")
	})
	serve.HTTP("127.0.0.1:0", mux)
}
