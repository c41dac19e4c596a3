/* Two levels of doubly linked lists; a lane is in the line exactly while it has items. */

#include "orchestrate/queue.h"

static void line_up(lw_queue *q, lw_queue_lane *lane)
{
    lane->next = NULL;
    lane->prev = q->last;
    if (q->last)
        q->last->next = lane;
    else
        q->first = lane;
    q->last = lane;
}

static void leave_line(lw_queue *q, lw_queue_lane *lane)
{
    if (lane->prev)
        lane->prev->next = lane->next;
    else
        q->first = lane->next;
    if (lane->next)
        lane->next->prev = lane->prev;
    else
        q->last = lane->prev;
    lane->prev = lane->next = NULL;
}

static void go_first(lw_queue *q, lw_queue_lane *lane)
{
    lane->prev = NULL;
    lane->next = q->first;
    if (q->first)
        q->first->prev = lane;
    else
        q->last = lane;
    q->first = lane;
}

void lw_queue_push(lw_queue *q, lw_queue_lane *lane, lw_queue_item *item)
{
    item->lane = lane;
    item->next = NULL;
    item->prev = lane->tail;
    if (lane->tail) {
        lane->tail->next = item;
    } else {
        lane->head = item;
        line_up(q, lane);
    }
    lane->tail = item;
    q->n++;
}

void lw_queue_push_front(lw_queue *q, lw_queue_lane *lane, lw_queue_item *item)
{
    item->lane = lane;
    item->prev = NULL;
    item->next = lane->head;
    if (lane->head) {
        lane->head->prev = item;
        leave_line(q, lane);
    } else {
        lane->tail = item;
    }
    lane->head = item;
    go_first(q, lane);
    q->n++;
}

void lw_queue_remove(lw_queue *q, lw_queue_item *item)
{
    lw_queue_lane *lane = item->lane;

    if (!lane)
        return;
    if (item->prev)
        item->prev->next = item->next;
    else
        lane->head = item->next;
    if (item->next)
        item->next->prev = item->prev;
    else
        lane->tail = item->prev;
    if (!lane->head)
        leave_line(q, lane);
    item->prev = item->next = NULL;
    item->lane = NULL;
    q->n--;
}

lw_queue_item *lw_queue_take(lw_queue *q, lw_queue_fits *fits, void *arg)
{
    for (lw_queue_item *it = NULL; (it = lw_queue_next(q, it));) {
        lw_queue_lane *lane = it->lane;

        if (!fits(it, arg))
            continue;
        lw_queue_remove(q, it);
        if (lane->head) {
            leave_line(q, lane);
            line_up(q, lane);
        }
        return it;
    }
    return NULL;
}

lw_queue_item *lw_queue_next(const lw_queue *q, const lw_queue_item *it)
{
    if (!it)
        return q->first ? q->first->head : NULL;
    if (it->next)
        return it->next;
    return it->lane->next ? it->lane->next->head : NULL;
}
