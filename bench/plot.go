package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// plots collects the results' series by the plot they belong to; points of one
// line may come from several cases.
func plots(results []*Result) (names []string, lines map[string][]Series) {
	lines = map[string][]Series{}
	for _, r := range results {
		for _, s := range r.Series {
			if !slices.Contains(names, s.Plot) {
				names = append(names, s.Plot)
			}
			all := lines[s.Plot]
			if i := slices.IndexFunc(all, func(o Series) bool { return o.Name == s.Name }); i >= 0 {
				all[i].Points = append(slices.Clone(all[i].Points), s.Points...)
			} else {
				lines[s.Plot] = append(all, s)
			}
		}
	}
	for _, all := range lines {
		for _, s := range all {
			slices.SortFunc(s.Points, func(a, b [2]float64) int { return cmp.Compare(a[0], b[0]) })
		}
	}
	return names, lines
}

// drawSVG writes lines with common axes to an SVG file.
func drawSVG(path string, lines []Series) error {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = lines[0].X, lines[0].Y
	p.Y.Min, p.Legend.Top = 0, true
	least, most := lines[0].Points[0][0], lines[0].Points[0][0]
	for i, s := range lines {
		xy := make(plotter.XYs, len(s.Points))
		for j, at := range s.Points {
			xy[j].X, xy[j].Y = at[0], at[1]
			least, most = min(least, at[0]), max(most, at[0])
		}
		line, dots, err := plotter.NewLinePoints(xy)
		if err != nil {
			return fmt.Errorf("draw %s: %w", s.Name, err)
		}
		line.Color, dots.Color, dots.Shape = plotutil.Color(i), plotutil.Color(i), plotutil.Shape(i)
		p.Add(line, dots)
		p.Legend.Add(s.Name, line, dots)
	}
	p.Y.Max *= 1.2 // room for the legend
	if least > 0 && most > 20*least {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	canvas := vgsvg.New(16*vg.Centimeter, 9*vg.Centimeter)
	p.Draw(draw.New(canvas))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the folder of plots: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	defer f.Close()
	if _, err := canvas.WriteTo(f); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return f.Close()
}
