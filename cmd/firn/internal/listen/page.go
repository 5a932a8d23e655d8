package listen

import (
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"firn/lake"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"size": Size, "count": Count, "join": strings.Join,
	"done": func(t lake.TableStatus) string {
		if t.LoadTotal <= 0 {
			return ""
		}
		return fmt.Sprintf("%d %%", min(99, 100*t.LoadRows/t.LoadTotal))
	},
}).Parse(pageText))

// page is the status for people: one document that asks for nothing else and
// runs no script.
func (l *Listener) page(w http.ResponseWriter, r *http.Request) {
	st := l.o.Status()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	data := struct {
		Status
		NotReady []string
		URL      string
	}{st, notReady(st), "http://" + r.Host}
	if err := pageTemplate.Execute(w, data); err != nil {
		l.o.Logger.Debug("write page", "err", err) // half of it is sent: nothing else can be said
	}
}

// Size prints bytes for people, in powers of 1024.
func Size(n int64) string {
	const units = "kMGTP"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v /= 1024
		u++
	}
	if v < 10 {
		return fmt.Sprintf("%.1f %cB", v, units[u])
	}
	return fmt.Sprintf("%.0f %cB", v, units[u])
}

// Count prints a number with its thousands apart.
func Count(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
