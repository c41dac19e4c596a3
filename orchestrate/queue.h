#ifndef LW_ORCHESTRATE_QUEUE_H
#define LW_ORCHESTRATE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * First come, first served within a client; round robin between clients. A client with a thousand
 * tasks waiting delays another's single task by one turn, not by a thousand.
 *
 *     queue -> [lane of A] -> [lane of B] -> ...      lanes in the order of their next turn
 *                 |              |
 *               a1 a2 a3        b1                    items in the order they came
 *
 * Items and lanes are members of the caller's structs; the queue owns nothing. A zeroed queue, lane
 * or item is empty, unlinked. Thread rule: one thread.
 */

typedef struct lw_queue_lane lw_queue_lane;

typedef struct lw_queue_item {
    struct lw_queue_item *prev, *next;
    lw_queue_lane *lane; /* NULL: in no queue */
} lw_queue_item;

struct lw_queue_lane {
    lw_queue_lane *prev, *next;
    lw_queue_item *head, *tail; /* both NULL: the lane is in no queue */
};

typedef struct lw_queue {
    lw_queue_lane *first, *last;
    size_t n; /* items in all lanes */
} lw_queue;

/** Whether an item may leave the queue now. */
typedef bool lw_queue_fits(const lw_queue_item *item, void *arg);

/** Add behind the lane's other items. The item is in no queue; a lane belongs to one queue. */
void lw_queue_push(lw_queue *q, lw_queue_lane *lane, lw_queue_item *item);
/** Add before the lane's other items, and give the lane the next turn: work that is done again. */
void lw_queue_push_front(lw_queue *q, lw_queue_lane *lane, lw_queue_item *item);
/** Take an item out, wherever it stands. An item in no queue is left alone. */
void lw_queue_remove(lw_queue *q, lw_queue_item *item);
/**
 * Take the next item that fits: lanes in turn, within a lane in order. The lane that gave it goes
 * to the end of the line. NULL: none fits.
 */
lw_queue_item *lw_queue_take(lw_queue *q, lw_queue_fits *fits, void *arg);
/** Visit all items, lanes in turn: the first one for *it == NULL, then the one after *it; NULL at
 * the end. The queue must not change between. */
lw_queue_item *lw_queue_next(const lw_queue *q, const lw_queue_item *it);

#endif
