// Command orders answers each request with a row of a database.
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
	database := flag.String("database", "", "HOST:PORT of the database")
	connections := flag.Int("connections", 4, "connections to it")
	flag.Parse()
	tied.ToParent()

	pool := NewPool(*database, *connections)
	http.HandleFunc("GET /items/{id}", func(w http.ResponseWriter, r *http.Request) {
		row, err := pool.Query(r.PathValue("id"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, row)
	})
	http.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "well")
	})
	serve.HTTP(*address, http.DefaultServeMux)
}
