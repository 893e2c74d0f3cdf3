package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// sources parses the Go files of one folder that are no tests, in order.
func sources(dir string) ([]*ast.File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, entry := range entries {
		if !isSource(entry) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, entry.Name()), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func isSource(entry fs.DirEntry) bool {
	return !entry.IsDir() && strings.HasSuffix(entry.Name(), ".go") && !strings.HasSuffix(entry.Name(), "_test.go")
}

// constant is a declared string.
type constant struct{ name, value, doc string }

// docWithoutName is the comment without the name that it begins with.
func (c constant) docWithoutName() string {
	text := strings.TrimPrefix(c.doc, c.name)
	text = strings.TrimPrefix(strings.TrimPrefix(text, ":"), " is on")
	if text != c.doc && strings.Contains(c.doc, " is on ") {
		text = "On" + text
	}
	text = strings.TrimSpace(text)
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// constants returns the exported string constants of a type in a package, in
// order; "" is the type of those without one. A value is what its string
// literals say, and the group's name for GroupName.
func constants(dir, kind string) ([]constant, error) {
	files, err := sources(dir)
	if err != nil {
		return nil, err
	}
	var found []constant
	for _, file := range files {
		for _, decl := range file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			for _, spec := range group.Specs {
				s := spec.(*ast.ValueSpec)
				declared := ""
				if s.Type != nil {
					declared = types.ExprString(s.Type)
				}
				if declared != kind || len(s.Values) != 1 || !s.Names[0].IsExported() {
					continue
				}
				if value, ok := stringValue(s.Values[0]); ok {
					found = append(found, constant{s.Names[0].Name, value, s.Doc.Text()})
				}
			}
		}
	}
	return found, nil
}

// stringValue evaluates literals, their sums and GroupName.
func stringValue(expr ast.Expr) (string, bool) {
	switch e := expr.(type) {
	case *ast.BasicLit:
		value, err := strconv.Unquote(e.Value)
		return value, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		return "heraldlb.io", e.Name == "GroupName"
	case *ast.BinaryExpr:
		left, ok := stringValue(e.X)
		right, also := stringValue(e.Y)
		return left + right, ok && also && e.Op == token.ADD
	}
	return "", false
}

// declaredStruct is a struct type with the fields that JSON shows.
type declaredStruct struct {
	doc    string
	fields []field
}

type field struct{ json, kind, doc string }

// structs returns the struct types of a package by name.
func structs(dir string) (map[string]declaredStruct, error) {
	files, err := sources(dir)
	if err != nil {
		return nil, err
	}
	found := map[string]declaredStruct{}
	for _, file := range files {
		for _, decl := range file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok || group.Tok != token.TYPE {
				continue
			}
			for _, spec := range group.Specs {
				s := spec.(*ast.TypeSpec)
				if body, ok := s.Type.(*ast.StructType); ok {
					found[s.Name.Name] = declaredStruct{group.Doc.Text() + s.Doc.Text(), jsonFields(body)}
				}
			}
		}
	}
	return found, nil
}

func jsonFields(body *ast.StructType) []field {
	var fields []field
	for _, f := range body.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		fields = append(fields, field{name, strings.TrimPrefix(types.ExprString(f.Type), "*"), f.Doc.Text()})
	}
	return fields
}
