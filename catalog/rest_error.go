package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
)

// restError is an answer in the specification's ErrorModel. The wrapped error
// goes to the log, not to the client.
type restError struct {
	Status  int
	Type    string
	Message string
	cause   error
}

func (e *restError) Error() string {
	if e.cause != nil {
		return e.Message + ": " + e.cause.Error()
	}
	return e.Message
}

func (e *restError) Unwrap() error { return e.cause }

func badRequest(format string, a ...any) error {
	return &restError{Status: http.StatusBadRequest, Type: "BadRequestException", Message: fmt.Sprintf(format, a...)}
}

func noSuchNamespace(ns []string) error {
	return &restError{Status: http.StatusNotFound, Type: "NoSuchNamespaceException",
		Message: "Namespace does not exist: " + Ident{Namespace: ns[:len(ns)-1], Name: ns[len(ns)-1]}.String()}
}

func noSuchTable(id Ident) error {
	return &restError{Status: http.StatusNotFound, Type: "NoSuchTableException", Message: "Table does not exist: " + id.String()}
}

func noSuchView(id Ident) error {
	return &restError{Status: http.StatusNotFound, Type: "NoSuchViewException", Message: "View does not exist: " + id.String()}
}

func alreadyExists(format string, a ...any) error {
	return &restError{Status: http.StatusConflict, Type: "AlreadyExistsException", Message: fmt.Sprintf(format, a...)}
}

// commitFailed is the conflict that clients answer by a retry on fresh
// metadata.
func commitFailed(format string, a ...any) error {
	return &restError{Status: http.StatusConflict, Type: "CommitFailedException", Message: fmt.Sprintf(format, a...)}
}

// forbidden is a refusal that a retry cannot cure; a 409 would be retried.
func forbidden(format string, a ...any) error {
	return &restError{Status: http.StatusForbidden, Type: "ForbiddenException", Message: fmt.Sprintf(format, a...)}
}

func unprocessable(format string, a ...any) error {
	return &restError{Status: http.StatusUnprocessableEntity, Type: "UnprocessableEntityException", Message: fmt.Sprintf(format, a...)}
}

func unavailable(doing string, cause error) error {
	return &restError{Status: http.StatusServiceUnavailable, Type: "ServiceUnavailableException",
		Message: "could not " + doing + "; nothing was changed, try again", cause: cause}
}

// stateUnknown is for a commit whose answer was lost: clients must look before
// they try again, and must not delete their files.
func stateUnknown(cause error) error {
	return &restError{Status: http.StatusInternalServerError, Type: "CommitStateUnknownException",
		Message: "could not learn whether the commit took effect", cause: cause}
}

// fail answers err and logs what is the server's fault.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var e *restError
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &tooLong):
		e = &restError{Status: http.StatusRequestEntityTooLarge, Type: "BadRequestException",
			Message: "the request is larger than " + strconv.FormatInt(tooLong.Limit, 10) + " bytes"}
	case errors.Is(err, context.Canceled):
		// The client has gone; the status is for the access log only.
		e = &restError{Status: 499, Type: "ClientClosedRequest", Message: "the client went away"}
	case errors.Is(err, fs.ErrNotExist):
		e = &restError{Status: http.StatusInternalServerError, Type: "InternalServerError", Message: "an object of the warehouse is missing", cause: err}
	default:
		e = &restError{Status: http.StatusInternalServerError, Type: "InternalServerError", Message: "internal error", cause: err}
	}
	if e.Status >= 500 {
		s.slog.Error("catalog request", "method", r.Method, "path", r.URL.Path, "status", e.Status, "err", err)
	} else {
		s.slog.Debug("catalog request", "method", r.Method, "path", r.URL.Path, "status", e.Status, "err", err)
	}
	writeError(w, r, e)
}

func writeError(w http.ResponseWriter, r *http.Request, e *restError) {
	h := w.Header()
	h.Del("Etag")
	if e.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="firn"`)
	}
	if e.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(e.Status)
		return
	}
	type model struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Code    int    `json:"code"`
	}
	body, err := json.Marshal(map[string]model{"error": {e.Message, e.Type, e.Status}})
	if err != nil {
		// Strings and a number always marshal.
		panic(err)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // the client is gone if this fails: nobody is left to tell
}
