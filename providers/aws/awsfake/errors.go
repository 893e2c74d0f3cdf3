package awsfake

import (
	"errors"
	"fmt"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// text is a message in the shape that the SDK's errors want.
func text(format string, args ...any) *string {
	message := fmt.Sprintf(format, args...)
	return &message
}

// refuse is an error that has no type of its own in the SDK.
func refuse(code, format string, args ...any) error {
	return &smithy.GenericAPIError{Code: code, Message: *text(format, args...), Fault: smithy.FaultClient}
}

// invalid is what the load balancing APIs say of a value that they do not
// even try.
func invalid(format string, args ...any) error {
	return refuse("ValidationError", format, args...)
}

// Throttling is the error of a call that comes too soon: the code is
// Throttling, but RequestLimitExceeded for EC2.
func Throttling(call Call) error {
	if call.API == EC2 {
		return refuse("RequestLimitExceeded", "Request limit exceeded.")
	}
	return refuse("Throttling", "Rate exceeded")
}

// ServerError is what AWS answers when it is at fault.
func ServerError(call Call) error {
	code := "InternalFailure"
	if call.API == EC2 {
		code = "InternalError"
	}
	return &smithy.GenericAPIError{Code: code, Message: "An internal error has occurred", Fault: smithy.FaultServer}
}

// answered wraps an error of AWS in the response that it would come with. An
// error of another kind, such as a broken connection, came without one.
func answered(err error, serial int) error {
	var api smithy.APIError
	if err == nil || !errors.As(err, &api) {
		return err
	}
	status := http.StatusBadRequest
	switch {
	case api.ErrorFault() == smithy.FaultServer:
		status = http.StatusInternalServerError
	case api.ErrorCode() == "RequestLimitExceeded":
		status = http.StatusServiceUnavailable
	}
	return &awshttp.ResponseError{
		RequestID: fmt.Sprintf("00000000-0000-0000-0000-%012x", serial),
		ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
			Err:      err,
		},
	}
}
