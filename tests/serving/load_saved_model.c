// Loads a SavedModel without Python and prints the masks that it finds in an image, by the C API,
// which compiles in a tenth of a second; behind it is the loader of C++ that servers use.
// Arguments: the folder of the SavedModel, the file of the image, the operation that takes the
// image, the operation that gives the masks, and the number of the output.
#include <stdio.h>
#include <stdlib.h>

#include "tensorflow/c/c_api.h"

static void check(TF_Status* status) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s\n", TF_Message(status));
  exit(1);
}

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  const char* tags[] = {"serve"};
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Session* session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status);

  static char content[1 << 22];
  FILE* file = fopen(argv[2], "rb");
  if (!file) return perror(argv[2]), 1;
  size_t length = fread(content, 1, sizeof content, file);
  int64_t shape[] = {1};
  TF_Tensor* image_bytes = TF_AllocateTensor(TF_STRING, shape, 1, sizeof(TF_TString));
  TF_TString* text = TF_TensorData(image_bytes);
  TF_StringInit(text);
  TF_StringCopy(text, content, length);

  TF_Output input = {TF_GraphOperationByName(graph, argv[3]), 0};
  TF_Output output = {TF_GraphOperationByName(graph, argv[4]), atoi(argv[5])};
  if (!input.oper || !output.oper) return fprintf(stderr, "no such operation\n"), 1;
  TF_Tensor* masks = NULL;
  TF_SessionRun(session, NULL, &input, &image_bytes, 1, &output, &masks, 1, NULL, 0, NULL, status);
  check(status);
  for (int i = 0; i < 4; ++i) {
    const TF_TString* rle = (const TF_TString*)TF_TensorData(masks) + i;
    printf("%.*s\n", (int)TF_StringGetSize(rle), TF_StringGetDataPointer(rle));
  }
}
