package laketest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy is a TCP proxy that can be made a bad network.
type Proxy struct {
	Addr string // host:port to connect to

	target string
	listen net.Listener
	done   chan struct{}

	mu    sync.Mutex
	calm  *sync.Cond // the mode has changed
	conns map[*proxied]bool
	stall bool
	chunk int // bytes forwarded at a time; 0: as they come
	quota int // bytes that may still pass before all is cut; 0: no limit
	away  bool
}

// proxied is one connection through the proxy.
type proxied struct {
	client, server net.Conn
	lost           bool // nothing gets through any more, and nobody is told
}

// StartProxy forwards connections to target, host:port, until the test ends.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, listen: l, done: make(chan struct{}), conns: map[*proxied]bool{}}
	p.calm = sync.NewCond(&p.mu)
	go p.accept()
	t.Cleanup(func() {
		close(p.done)
		_ = l.Close()
		p.Cut()
		p.set(func() { p.stall = false })
	})
	return p
}

func (p *Proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		go p.serve(client)
	}
}

func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	away := p.away
	p.mu.Unlock()
	if away {
		_ = client.(*net.TCPConn).SetLinger(0)
		_ = client.Close()
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil { // as the target refuses, so does the proxy
		_ = client.Close()
		return
	}
	c := &proxied{client: client, server: server}
	p.set(func() { p.conns[c] = true })
	var both sync.WaitGroup
	both.Go(func() { p.forward(c, server, client) })
	both.Go(func() { p.forward(c, client, server) })
	both.Wait()
	_ = client.Close()
	_ = server.Close()
	p.set(func() { delete(p.conns, c) })
}

// forward copies one direction until its end, which it passes on.
func (p *Proxy) forward(c *proxied, to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		p.mu.Lock()
		n := len(buf)
		if p.chunk > 0 {
			n = p.chunk
		}
		p.mu.Unlock()
		n, err := from.Read(buf[:n])
		if !p.pass(c, n) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				_ = to.(*net.TCPConn).CloseWrite()
			} else {
				_ = to.Close()
			}
			return
		}
	}
}

// pass waits until n bytes may go on. False: they are lost.
func (p *Proxy) pass(c *proxied, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		select {
		case <-p.done:
			return false
		default:
		}
		if !p.stall && !c.lost {
			break
		}
		p.calm.Wait()
	}
	if p.quota > 0 {
		if p.quota -= n; p.quota <= 0 {
			p.quota = 0
			p.cut()
		}
	}
	return true
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	change()
	p.calm.Broadcast()
	p.mu.Unlock()
}

// Cut resets all connections.
func (p *Proxy) Cut() { p.set(p.cut) }

func (p *Proxy) cut() {
	for c := range p.conns {
		for _, conn := range []net.Conn{c.client, c.server} {
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset, not an end
			_ = conn.Close()
		}
		c.lost = false
	}
	p.calm.Broadcast()
}

// CutAfter resets all connections once so many more bytes have passed.
func (p *Proxy) CutAfter(bytes int) { p.set(func() { p.quota = bytes }) }

// Away refuses new connections and cuts those there are, or takes them again.
func (p *Proxy) Away(away bool) {
	p.set(func() {
		p.away = away
		if away {
			p.cut()
		}
	})
}

// Stall holds back everything, new connections' bytes too, or lets it go on.
func (p *Proxy) Stall(stall bool) { p.set(func() { p.stall = stall }) }

// Lose makes the present connections half-open: nothing passes on them any
// more, and neither side is told, not even when the other one closes. New
// connections are well.
func (p *Proxy) Lose() {
	p.set(func() {
		for c := range p.conns {
			c.lost = true
		}
	})
}

// Dribble forwards so many bytes at a time, each in a packet; 0: as they come.
func (p *Proxy) Dribble(bytes int) { p.set(func() { p.chunk = bytes }) }

// Conns is how many connections there are.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}
