// An echo server on Go's net: a goroutine and a read buffer for each session, TCP_NODELAY, which is
// Go's default.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
)

const bufferBytes = 16 * 1024

func serve(session net.Conn) {
	defer session.Close()
	buffer := make([]byte, bufferBytes)
	for {
		count, err := session.Read(buffer)
		if err != nil {
			return // the end of the stream, or a peer that resets
		}
		if _, err := session.Write(buffer[:count]); err != nil {
			return
		}
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where to listen")
	workload := flag.String("workload", "echo", "what to do")
	flag.Parse()
	if *workload != "echo" {
		fmt.Fprintln(os.Stderr, "error: this server does not do", *workload)
		os.Exit(2)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		session, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		go serve(session)
	}
}
