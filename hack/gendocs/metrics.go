package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// metric is a metric as its declaration has it.
type metric struct{ name, kind, labels, help string }

// metricsPage lists the metrics that Herald's own code declares. A name of a
// metric that stands in the code in a way not understood here is an error.
func metricsPage() (string, error) {
	byProgram := map[string][]metric{}
	used, err := usedByPrograms()
	if err != nil {
		return "", err
	}
	err = filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if skip := path == "hack" || path == "test" || path == "bin" || path != "." && strings.HasPrefix(path, "."); skip {
			return fs.SkipDir
		}
		if !used[path] {
			return nil // a package on its way: no program serves its metrics yet
		}
		found, err := metricsIn(path)
		if err != nil {
			return err
		}
		program := "herald-controller-manager"
		if path == "speaker" || strings.HasPrefix(path, "speaker/") {
			program = "herald-speaker"
		}
		byProgram[program] = append(byProgram[program], found...)
		return nil
	})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# Metrics\n\nHerald's own; both programs also serve those of the Go runtime and of the process at `/metrics`, " +
		"and herald-controller-manager those of the Kubernetes controller libraries.\n")
	for _, program := range []string{"herald-controller-manager", "herald-speaker"} {
		metrics := byProgram[program]
		slices.SortFunc(metrics, func(a, b metric) int { return strings.Compare(a.name, b.name) })
		var rows [][]string
		for _, m := range metrics {
			rows = append(rows, []string{code(m.name), m.kind, m.labels, m.help})
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s", program, table([]string{"Metric", "Type", "Labels", "Meaning"}, rows))
	}
	return b.String(), nil
}

func metricsIn(dir string) ([]metric, error) {
	files, err := sources(dir)
	if err != nil {
		return nil, err
	}
	var found []metric
	names := map[string]bool{} // literals that look like the name of a metric
	labels := map[ast.Expr]string{}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if value, ok := stringValue(n); ok && n.Kind == token.STRING && strings.HasPrefix(value, "herald_") {
					names[value] = true
				}
			case *ast.CallExpr:
				if m, ok := newDesc(n); ok {
					found = append(found, m)
				}
				// New…Vec(Opts{…}, labels): the options are visited after this.
				if len(n.Args) == 2 {
					labels[unwrap(n.Args[0])] = stringList(n.Args[1])
				}
			case *ast.CompositeLit:
				if m, ok := options(n); ok {
					m.labels = labels[n]
					found = append(found, m)
				}
			}
			return true
		})
	}
	for _, m := range found {
		delete(names, m.name)
		if m.help == "" {
			return nil, fmt.Errorf("%s: %s has no help", dir, m.name)
		}
	}
	for name := range names {
		return nil, fmt.Errorf("%s: %s is declared in a way that gendocs does not know", dir, name)
	}
	return found, nil
}

// newDesc reads prometheus.NewDesc(name, help, labels, nil).
func newDesc(call *ast.CallExpr) (metric, bool) {
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || fun.Sel.Name != "NewDesc" || len(call.Args) != 4 {
		return metric{}, false
	}
	name, _ := stringValue(call.Args[0])
	help, _ := stringValue(call.Args[1])
	kind := "gauge"
	if strings.HasSuffix(name, "_total") {
		kind = "counter"
	}
	return metric{name, kind, stringList(call.Args[2]), help}, strings.HasPrefix(name, "herald_")
}

// options reads CounterOpts{Name: …, Help: …} and its kin.
func options(literal *ast.CompositeLit) (metric, bool) {
	fun, ok := literal.Type.(*ast.SelectorExpr)
	if !ok || !strings.HasSuffix(fun.Sel.Name, "Opts") {
		return metric{}, false
	}
	m := metric{kind: strings.ToLower(strings.TrimSuffix(fun.Sel.Name, "Opts"))}
	for _, element := range literal.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, _ := pair.Key.(*ast.Ident)
		switch value, _ := stringValue(pair.Value); {
		case key == nil:
		case key.Name == "Name":
			m.name = value
		case key.Name == "Help":
			m.help = value
		}
	}
	return m, strings.HasPrefix(m.name, "herald_")
}

func unwrap(expr ast.Expr) ast.Expr {
	if pointer, ok := expr.(*ast.UnaryExpr); ok {
		return pointer.X
	}
	return expr
}

func stringList(expr ast.Expr) string {
	literal, ok := expr.(*ast.CompositeLit)
	if !ok {
		return ""
	}
	var values []string
	for _, element := range literal.Elts {
		if value, ok := stringValue(element); ok {
			values = append(values, code(value))
		}
	}
	return strings.Join(values, ", ")
}

// usedByPrograms are the folders of our packages that end up in a program.
func usedByPrograms() (map[string]bool, error) {
	const module = "github.com/heraldlb/herald/"
	out, err := exec.Command("go", "list", "-deps", "./cmd/...").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the packages of the programs: %w", err)
	}
	used := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if folder, ours := strings.CutPrefix(strings.TrimSpace(line), module); ours {
			used[folder] = true
		}
	}
	return used, nil
}
