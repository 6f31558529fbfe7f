// Command upload takes files over HTTP. Large ones take it a while.
package main

import (
	"flag"
	"net/http"
	"time"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	pprof := flag.String("pprof", "", "where to serve profiles; nowhere if empty")
	var archive Archive
	flag.Int64Var(&archive.LargeBytes, "large-bytes", 100_000, "an upload of this size is large")
	flag.DurationVar(&archive.LargeDelay, "large-delay", 1500*time.Millisecond, "what a large one takes")
	flag.DurationVar(&archive.SmallDelay, "small-delay", 0, "what a small one takes")
	flag.Parse()
	tied.ToParent()

	serve.Pprof(*pprof)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /upload", archive.Upload)
	serve.HTTP(*address, mux)
}
