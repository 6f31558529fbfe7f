// Command relay counts words of a text that it passes from stage to stage, in pieces.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"strings"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	pprof := flag.String("pprof", "", "where to serve /debug/pprof/; nowhere if empty")
	stages := flag.Int("stages", 8, "stages that a text passes")
	piece := flag.Int("piece", 1, "words in a piece")
	words := flag.Int("words", 2_000, "words in a text")
	bound := flag.Bool("bound", false, "each stage keeps a thread for itself")
	flag.Parse()
	tied.ToParent()

	text := strings.Fields(strings.Repeat("tiny ", *words))
	line := NewLine(*stages, *bound)
	http.HandleFunc("GET /count", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, line.Count(text, *piece))
	})
	serve.Pprof(*pprof)
	serve.HTTP(*address, http.DefaultServeMux)
}
