// Package failover breaks things below a Service in a sandbox, and records what
// its clients and its LAN see of it: the benchmark prints that, the end-to-end
// tests judge it.
//
// A round goes so: [Scene.Begin] waits until all is well and stays so,
// [Run.Break] breaks something, [Run.Settle] waits until clients are served
// again, [Run.End] returns the [Trace]; [Scene.Restore] makes the cluster whole,
// whatever happened.
package failover
