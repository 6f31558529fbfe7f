// Command catalog answers searches, beside a catalogue that lies in memory.
package main

import (
	"flag"
	"fmt"
	"net/http"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	pprof := flag.String("pprof", "", "where to serve /debug/pprof/; nowhere if empty")
	items := flag.Int("items", 10_000, "items in the catalogue")
	copies := flag.Bool("copies", false, "copy every item that a search looks at")
	looks := flag.Int("looks", 2_000, "items that a search looks at")
	flag.Parse()
	tied.ToParent()

	catalogue := NewCatalogue(*items)
	search := catalogue.Search
	if *copies {
		search = catalogue.SearchCopies
	}
	http.HandleFunc("GET /search", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, search(r.URL.Query().Get("q"), *looks))
	})
	serve.Pprof(*pprof)
	serve.HTTP(*address, http.DefaultServeMux)
}
