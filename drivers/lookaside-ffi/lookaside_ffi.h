/* Made by cbindgen from src/lib.rs: a test says when it must be made again. */

#ifndef LOOKASIDE_FFI_H
#define LOOKASIDE_FFI_H

#include <stdint.h>

/*
 What the driver keeps for each of its clients. In C++ it is opaque.
 */
struct Context;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Makes the list, whose entries have this tag in the pool. Returns an NTSTATUS.
 */
int32_t init_lookaside(uint32_t tag);

/*
 Makes a context with a number, and stores a pointer to it. Returns an NTSTATUS; on failure the pointer is null.

 # Safety
 `context` is null or points to where a pointer may be written.
 */
int32_t create_context(uint64_t number,
                       struct Context **context);

/*
 The number of a context.

 # Safety
 `context` came from `create_context`, and was not removed.
 */
uint64_t context_number(const struct Context *context);

/*
 Removes a context. Null is nothing.

 # Safety
 `context` is null, or came from `create_context` and was not removed.
 */
void remove_context(struct Context *context);

/*
 Deletes the list. Returns an NTSTATUS: contexts that are out keep it. Called again it does nothing.
 */
int32_t free_lookaside(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LOOKASIDE_FFI_H */
