//go:build !amd64

package sandbox

import "syscall"

const sysSetns = syscall.SYS_SETNS
