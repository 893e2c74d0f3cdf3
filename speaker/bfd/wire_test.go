package bfd

func sweep() {}
