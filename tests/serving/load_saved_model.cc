// Loads a SavedModel without Python and prints the masks that it finds in an image.
// Arguments: the folder of the SavedModel, the file of the image.
#include <fstream>
#include <iostream>
#include <sstream>

#include "tensorflow/cc/saved_model/loader.h"

int main(int argc, char** argv) {
  tensorflow::SavedModelBundleLite bundle;
  auto status = tensorflow::LoadSavedModel({}, {}, argv[1], {"serve"}, &bundle);
  if (!status.ok()) return std::cerr << status.ToString() << "\n", 1;
  std::stringstream content;
  content << std::ifstream(argv[2], std::ios::binary).rdbuf();
  tensorflow::Tensor image_bytes(tensorflow::DT_STRING, {1});
  image_bytes.vec<tensorflow::tstring>()(0) = content.str();
  const auto& signature = bundle.GetSignatures().at("serving_default");
  std::vector<tensorflow::Tensor> outputs;
  status = bundle.GetSession()->Run({{signature.inputs().at("image_bytes").name(), image_bytes}},
                                    {signature.outputs().at("encoded_pixels").name()}, {}, &outputs);
  if (!status.ok()) return std::cerr << status.ToString() << "\n", 1;
  for (int i = 0; i < 4; ++i) std::cout << outputs[0].flat<tensorflow::tstring>()(i) << "\n";
}
