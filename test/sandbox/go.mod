module github.com/heraldlb/herald/test/sandbox

go 1.26.0
