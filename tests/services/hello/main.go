// Command hello answers every request at once.
package main

import (
	"flag"
	"io"
	"net/http"

	"gopulse.test/services/internal/serve"
	"gopulse.test/services/internal/tied"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	pprof := flag.String("pprof", "", "where to serve profiles; nowhere if empty")
	flag.Parse()
	tied.ToParent()

	serve.Pprof(*pprof)
	serve.HTTP(*address, http.HandlerFunc(hello))
}

func hello(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "hello\n")
}
