package v1alpha1

import "fmt"

// Reason is why something is not so, in CamelCase. One value serves the
// condition, the event, the metric label and the test. The zero value means
// that nothing stands in the way.
type Reason string

// Refusal is an error that tells the author of an object why it cannot be
// served as it is, or not yet. Trying again helps only after something changed.
type Refusal struct {
	Reason Reason
	// Message is a sentence that names the field, the value and the remedy.
	Message string
}

// Refuse returns a Refusal with a formatted message, of at most MaxMessage bytes.
func Refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: Cut(fmt.Sprintf(format, args...), MaxMessage)}
}

// Error is the message alone: the reason stands beside it wherever it is shown.
func (r *Refusal) Error() string { return r.Message }
