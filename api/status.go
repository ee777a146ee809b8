package api

// A StatusCode is the state of an operation. One of 200 or more is final.
type StatusCode int

// Status codes of operations.
const (
	OperationCreated StatusCode = 100
	Started          StatusCode = 101
	Stopped          StatusCode = 102
	Running          StatusCode = 103
	Cancelling       StatusCode = 104
	Pending          StatusCode = 105
	Starting         StatusCode = 106
	Stopping         StatusCode = 107
	Aborting         StatusCode = 108
	Freezing         StatusCode = 109
	Frozen           StatusCode = 110
	Thawed           StatusCode = 111
	ErrorStatus      StatusCode = 112
	Ready            StatusCode = 113
	Success          StatusCode = 200
	Failure          StatusCode = 400
	Cancelled        StatusCode = 401
)

var statusNames = map[StatusCode]string{
	OperationCreated: "Operation created", Started: "Started", Stopped: "Stopped", Running: "Running",
	Cancelling: "Cancelling", Pending: "Pending", Starting: "Starting", Stopping: "Stopping",
	Aborting: "Aborting", Freezing: "Freezing", Frozen: "Frozen", Thawed: "Thawed", ErrorStatus: "Error",
	Ready: "Ready", Success: "Success", Failure: "Failure", Cancelled: "Cancelled",
}

func (c StatusCode) String() string { return statusNames[c] }

// IsFinal tells whether an operation in this state has ended.
func (c StatusCode) IsFinal() bool { return c >= 200 }
